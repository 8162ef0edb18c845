"""What is deployed and where it came from: measurements of release, modules and host."""
