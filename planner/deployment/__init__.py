"""What a user wrote — a request, a command line, a Modelfile, a manifest — made into nouns."""

from planner.deployment.request import (
    Deployment,
    parse_images,
    parse_question,
    parse_request,
    parse_settings,
)

__all__ = ["Deployment", "parse_images", "parse_question", "parse_request", "parse_settings"]
