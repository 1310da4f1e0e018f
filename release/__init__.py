"""What is done for a release: the lock with hashes (``make lock``), the audit (``make audit``)."""
