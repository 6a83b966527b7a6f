"""What an operator has already (an OpenAPI document, a curl line, a server) becomes endpoints: read, choose, check, merge. Only `live` and `importing` use the network."""
