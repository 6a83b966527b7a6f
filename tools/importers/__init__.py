"""What an operator has already (an OpenAPI document, a curl line) becomes endpoints: read, choose, check, merge. No network here."""
