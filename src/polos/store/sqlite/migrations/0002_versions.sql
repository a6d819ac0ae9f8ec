-- What code started an execution, and what code a worker runs. `versions` is a JSON object of code
-- versions by workflow id, of workers that run only what was started by the same code.

ALTER TABLE execution ADD COLUMN code_version TEXT;
ALTER TABLE worker ADD COLUMN deployment_id TEXT;
ALTER TABLE worker ADD COLUMN versions TEXT;
