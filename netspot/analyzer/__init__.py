"""Windows -> samples and alarms."""

from netspot.analyzer.analyzer import Analyzer
from netspot.analyzer.evidence import Names
from netspot.analyzer.mute import rules
from netspot.analyzer.watch import Watch, watches

__all__ = ["Analyzer", "Names", "Watch", "rules", "watches"]
