"""What shows jobs in other systems: see ``opentelemetry`` and ``prometheus``. Each needs its package, and is imported
by itself."""
