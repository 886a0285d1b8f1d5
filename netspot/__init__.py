"""netspot: a lean network anomaly detector. Packets in, alarms out."""

__version__ = "3.0.0"
