"""The log service: orders signed statements, proves each one's place and never rewrites."""
