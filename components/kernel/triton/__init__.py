"""A recorded step as a few Triton kernels: how it runs on a GPU."""
