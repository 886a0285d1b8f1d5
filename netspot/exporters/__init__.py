"""Where events go. Each exporter is one class, named in ``EXPORTERS`` of ``netspot.exporters.registry``.

``netspot.exporters.fanout.Exporters`` is what the service talks to: it builds those that the configuration uses.
"""
