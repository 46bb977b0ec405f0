"""Storage of indexes: the contract, and what disk and PostgreSQL share."""
