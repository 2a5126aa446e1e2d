"""A recorded step without a compiler: scalars by Python, blocks of rows by torch."""
