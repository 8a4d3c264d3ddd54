"""Simulated instruments under the real VISA stack."""
