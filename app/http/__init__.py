"""HTTP: routes, middleware, schemas and the server. Nothing here knows LlamaIndex."""
