"""What tests run against: real servers, and a fake of the model provider."""
