"""Real-shaped webhooks of one story, told by five tools, and how each tool signs them.

Owns sample data for the demo, the load generator and `webhook-cli send`. Never read by a service.
"""
