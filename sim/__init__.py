"""The bundled simulated instruments."""
