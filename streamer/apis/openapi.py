"""The description of what is asked over HTTP, OpenAPI 3.1, made from the types themselves."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from cnerta.streamer.apis.entities_request import (
    ENTITIES_PATH,
    FORM_TYPE,
    JSON_TYPE,
    EntitiesAnswer,
    EntitiesError,
    EntitiesOptions,
    EntitiesRequest,
)
from cnerta.streamer.wire.messages import MAX_TEXT_CHARACTERS

__all__ = ["OPENAPI_PATH", "openapi_document"]

OPENAPI_PATH: Final = "/openapi.json"
_REFUSALS: Final = {
    "400": "The content is no JSON, no form, or broke off.",
    "401": "No token, or none that is valid.",
    "403": "A web page that may not ask.",
    "408": "The content did not come in time.",
    "413": "The content is too large.",
    "415": "The content is neither JSON nor a form.",
    "422": "The content is read and cannot be answered: see name.",
    "429": "Too much was asked: see Retry-After.",
    "503": "There is no room now: see Retry-After.",
}


def openapi_document() -> dict[str, Any]:
    """The document as plain JSON values."""
    (request, options, answer, error), schemas = msgspec.json.schema_components(
        (EntitiesRequest, EntitiesOptions, EntitiesAnswer, EntitiesError),
        ref_template="#/components/schemas/{name}",
    )
    text = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT_CHARACTERS}
    audio = {"type": "string", "contentMediaType": "application/octet-stream"}
    form = {
        "type": "object",
        "required": ["text"],
        "properties": {"text": text, "audio": audio, "options": options},
        "additionalProperties": False,
    }
    refusals = {
        status: {
            "description": description,
            "content": {JSON_TYPE: {"schema": error}},
        }
        for status, description in _REFUSALS.items()
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cnerta-stream",
            "version": "1.0.0",
            "description": "Entities of one text, with its recording if there is one. Live audio "
            "goes over the WebSocket that asyncapi.json describes.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            ENTITIES_PATH: {
                "post": {
                    "operationId": "tagText",
                    "summary": "The entities of one text.",
                    "security": [{}, {"token": []}],
                    "requestBody": {
                        "required": True,
                        "content": {
                            JSON_TYPE: {"schema": request},
                            FORM_TYPE: {
                                "schema": form,
                                "encoding": {"options": {"contentType": JSON_TYPE}},
                            },
                        },
                    },
                    "responses": {
                        "200": {
                            "description": "The entities, in the order of the text.",
                            "content": {JSON_TYPE: {"schema": answer}},
                        },
                        **refusals,
                    },
                }
            }
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
