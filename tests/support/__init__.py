"""What the tests share: small models and pipelines, servers, trainings."""
