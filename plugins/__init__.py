"""The bundled driver plugins."""
