"""The pure core: all that an auditor must trust. It does no I/O, reads no clock and imports only `cryptography`."""
