"""HTTP servers under the gateway, compared bare: see docs/adr/0002-http-edge.md."""
