"""What is computed from stored runs, and from the networks that they trained."""
