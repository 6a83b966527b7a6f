"""The REST contract on /v1: one module per noun; `server.rest_api` puts them together."""
