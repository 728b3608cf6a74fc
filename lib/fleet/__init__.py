"""The fleet: many machines that share a queue and one view, over NATS. NATS is loaded by the door `fleet.py` alone."""
