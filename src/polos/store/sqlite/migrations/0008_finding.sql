-- What failed or was cancelled is found without going through what did not.

CREATE INDEX execution_in_error ON execution (id) WHERE error IS NOT NULL;
