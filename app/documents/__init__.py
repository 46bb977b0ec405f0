"""From the documents' folder to pages of text."""
