-- Finished roots by age, each workflow for itself: what retention has to remove is found by one
-- probe, however many finished executions there are.
CREATE INDEX execution_finished ON execution (workflow_id, completed_at)
  WHERE parent_id IS NULL AND completed_at IS NOT NULL;
