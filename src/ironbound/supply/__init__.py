"""The supply chain: what is shipped, and what is in it. No service imports this to decide what an agent may do."""
