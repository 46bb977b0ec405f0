"""Where indexes are kept: the contract, and what both kinds of storage share."""
