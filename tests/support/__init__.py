"""Real servers, a fake model provider and other parts that tests share."""
