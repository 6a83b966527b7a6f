"""`fhir`: searches, reads and writes of a FHIR R4 server (rules G)."""
