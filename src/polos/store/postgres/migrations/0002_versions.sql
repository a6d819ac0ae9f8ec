-- What code started an execution, and what code a worker runs. `versions` is a JSON object of code
-- versions by workflow id, of workers that run only what was started by the same code.

ALTER TABLE {s}.execution ADD COLUMN code_version text;
ALTER TABLE {s}.worker ADD COLUMN deployment_id text;
ALTER TABLE {s}.worker ADD COLUMN versions text;
