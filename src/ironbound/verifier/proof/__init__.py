"""What has to be proved about the kernel, and as which SMT-LIB files: pure, and the same wherever it is run."""
