"""Where events go. Each exporter is one class, named in ``EXPORTERS`` of ``netspot.exporters.registry``."""
