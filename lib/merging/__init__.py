"""The merge hub: what agents offer is brought together on one branch, checked, and delivered in the end."""
