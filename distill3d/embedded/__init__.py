"""All that makes the embedded prior and its judge: networks, training views, training, reports, weights."""
