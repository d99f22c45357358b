-- Messages that could not be applied and never can as things are. Beside the topic `<topic>.dlq`, where anybody may read
-- them: here they are counted, shown, replayed and dropped. They may name no merchant, or a wrong one: they are the
-- operator's, and the reader role is granted nothing here.
CREATE TABLE dead_letter (
  -- Made from the place and the bytes, so that a message that is delivered again is the same dead letter.
  dead_letter_id uuid PRIMARY KEY,
  topic text NOT NULL,
  partition integer NOT NULL,
  message_offset bigint NOT NULL,
  published_at timestamptz NOT NULL,
  -- The text's UTF-8: text would refuse NUL.
  key bytea,
  -- A JSON object of texts.
  headers text NOT NULL,
  value bytea,
  reason text NOT NULL,
  detail text NOT NULL,
  recorded_at timestamptz NOT NULL,
  replayed_at timestamptz,
  replays integer NOT NULL DEFAULT 0
);

-- What an operator asks for: what is open, newest last.
CREATE INDEX dead_letter_by_time ON dead_letter (recorded_at, dead_letter_id);
-- What goes by age: what was never replayed stays.
CREATE INDEX dead_letter_replayed ON dead_letter (replayed_at) WHERE replayed_at IS NOT NULL;
