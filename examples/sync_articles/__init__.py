"""What has changed fetched page by page, and stored batch by batch."""
