"""What every test shares."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """One thread: quick on tensors this small, and sums keep their order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
