"""Pipelines as services, as SAGE programs import them."""

from sage._serving import PipelineBridge, PipelineRequest, PipelineService, PipelineServiceSink, PipelineServiceSource

__all__ = ["PipelineBridge", "PipelineRequest", "PipelineService", "PipelineServiceSink", "PipelineServiceSource"]
