"""What everything else here stands on, and nobody outside of this package needs."""
