"""Windows -> samples and alarms."""

from netspot.analyzer.analyzer import Analyzer
from netspot.analyzer.watch import Watch, watches

__all__ = ["Analyzer", "Watch", "watches"]
