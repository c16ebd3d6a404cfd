"""What is asked over HTTP: requests with content, and doors of other APIs."""
