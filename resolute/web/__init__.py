"""L4, HTTP: health now; webhooks and the dashboard come here."""
