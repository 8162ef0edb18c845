"""The approval page: what is signed, on loopback, in the operator's own browser, with their passkey."""
