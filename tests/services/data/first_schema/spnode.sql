-- A data folder as the code of commit a418fb7 made it, the last before migration 0002.
-- That code migrated a new database, made a key, added a dataset, trained nothing but
-- published tests.core.models.small_surrogate(conserved=MASS, normalisation=LINEAR) in
-- the transaction that ended its job, queued a second job and claimed a third.
-- The text is sqlite3's `iterdump`; `store` beside it is the folder's store.
-- It is never changed: a later schema that deserves it gets a folder of its own.
BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE alias_moves (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	model VARCHAR(64) NOT NULL, 
	alias VARCHAR(64) NOT NULL, 
	number INTEGER, 
	previous INTEGER, 
	moved_by VARCHAR(200) NOT NULL, 
	reason TEXT NOT NULL, 
	moved_at BIGINT NOT NULL
);
INSERT INTO "alias_moves" VALUES(1,'small','champion',1,NULL,'tests','published',1795739524358058);
CREATE TABLE aliases (
	model VARCHAR(64) NOT NULL, 
	alias VARCHAR(64) NOT NULL, 
	number INTEGER NOT NULL, 
	revision BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	CONSTRAINT pk_aliases PRIMARY KEY (model, alias), 
	CONSTRAINT fk_aliases_model_number FOREIGN KEY(model, number) REFERENCES versions (model, number), 
	CONSTRAINT fk_aliases_model FOREIGN KEY(model) REFERENCES models (name)
);
INSERT INTO "aliases" VALUES('small','champion',1,1,1795739524358058);
CREATE TABLE datasets (
	id VARCHAR(64) NOT NULL, 
	owner VARCHAR(200) NOT NULL, 
	name VARCHAR(200), 
	digest VARCHAR(64) NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	summary JSON NOT NULL, 
	job_id VARCHAR(64), 
	created_at BIGINT NOT NULL, 
	CONSTRAINT pk_datasets PRIMARY KEY (id), 
	CONSTRAINT uq_datasets_job_id UNIQUE (job_id)
);
INSERT INTO "datasets" VALUES('ds_01m8d6mxqjgwgm8e87rcpd8hm8','tests','decay','25fd01b71a7c2172cfda3983a9328d09be724e0574e772ce63905cbb7aedebc7',633,'{"digest": "8af651be550f5be81e46bb853156667867ab18e90fbe62a8815707341a6fc614", "trajectories": 3, "samples": 15, "samples_per_trajectory": [5, 5], "missing": 0, "same_times": true, "times": {"unit": "", "start": 0.0, "shortest_step": 0.25, "longest": 1.0, "decades": 0.6020599913279624}, "states": {"a": {"unit": "", "minimum": 0.049787068367863944, "maximum": 1.0, "decades": 1.3028834457097556, "positive": true, "missing": 0, "time_scale": 0.4502239843628272}, "b": {"unit": "", "minimum": 0.049787068367863944, "maximum": 1.0, "decades": 1.3028834457097556, "positive": true, "missing": 0, "time_scale": 0.4502239843628272}, "c": {"unit": "", "minimum": 0.049787068367863944, "maximum": 1.0, "decades": 1.3028834457097556, "positive": true, "missing": 0, "time_scale": 0.4502239843628272}}, "parameters": {}, "controls": {}, "conserved": {}, "positive": false}',NULL,1795739514610170);
CREATE TABLE events (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	job_id VARCHAR(64) NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	level VARCHAR(8) NOT NULL, 
	message TEXT NOT NULL, 
	data JSON, 
	created_at BIGINT NOT NULL, 
	CONSTRAINT fk_events_job_id FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
);
INSERT INTO "events" VALUES(1,'job_01m8d6mxqn8v40ycd893eqjvkx','status','info','queued','{"state": "queued"}',1795739514613139);
INSERT INTO "events" VALUES(2,'job_01m8d6mxqn8v40ycd893eqjvkx','status','info','attempt 1','{"state": "running", "attempt": 1, "worker": "worker"}',1795739514659686);
INSERT INTO "events" VALUES(3,'job_01m8d6mxqn8v40ycd893eqjvkx','status','info','version 1 of small','{"state": "succeeded", "result": {"model": "small", "version": 1, "digest": "7f0c9e771734d0c47398c34fb0ac49de984e6b69277ac591058247ddad9b54fe"}}',1795739524369683);
INSERT INTO "events" VALUES(4,'job_01m8d6n78nf6rs5c11r9gkks6d','status','info','queued','{"state": "queued"}',1795739524373536);
INSERT INTO "events" VALUES(5,'job_01m8d6n78q7asqqvsbvjzn5xky','status','info','queued','{"state": "queued"}',1795739524375995);
INSERT INTO "events" VALUES(6,'job_01m8d6n78q7asqqvsbvjzn5xky','status','info','attempt 1','{"state": "running", "attempt": 1, "worker": "worker"}',1795739524378353);
CREATE TABLE jobs (
	id VARCHAR(64) NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	owner VARCHAR(200) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	request JSON NOT NULL, 
	progress JSON, 
	result JSON, 
	error JSON, 
	dataset_id VARCHAR(64), 
	attempt INTEGER NOT NULL, 
	max_attempts INTEGER NOT NULL, 
	token INTEGER NOT NULL, 
	lease_owner VARCHAR(200), 
	lease_until BIGINT, 
	cancel_requested BOOLEAN NOT NULL, 
	checkpoint VARCHAR(64), 
	idempotency_key VARCHAR(255), 
	request_hash VARCHAR(64), 
	sent_at BIGINT, 
	created_at BIGINT NOT NULL, 
	started_at BIGINT, 
	finished_at BIGINT, 
	CONSTRAINT pk_jobs PRIMARY KEY (id), 
	CONSTRAINT ck_jobs_leased_while_running CHECK ((state = 'running') = (lease_until IS NOT NULL)), 
	CONSTRAINT ck_jobs_state CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')), 
	CONSTRAINT fk_jobs_dataset_id FOREIGN KEY(dataset_id) REFERENCES datasets (id) ON DELETE SET NULL, 
	CONSTRAINT uq_jobs_owner_idempotency_key UNIQUE (owner, idempotency_key)
);
INSERT INTO "jobs" VALUES('job_01m8d6mxqn8v40ycd893eqjvkx','training','tests','succeeded','{"kind": "training", "dataset": "ds_01m8d6mxqjgwgm8e87rcpd8hm8", "model": "small"}',NULL,'{"model": "small", "version": 1, "digest": "7f0c9e771734d0c47398c34fb0ac49de984e6b69277ac591058247ddad9b54fe"}',NULL,'ds_01m8d6mxqjgwgm8e87rcpd8hm8',1,3,1,NULL,NULL,0,NULL,'first','683c452451f3d5df752523b021bed8f2399167b2db4aa16dd759774487ea1ead',NULL,1795739514613139,1795739514659686,1795739524369683);
INSERT INTO "jobs" VALUES('job_01m8d6n78nf6rs5c11r9gkks6d','training','tests','queued','{"kind": "training", "dataset": "ds_01m8d6mxqjgwgm8e87rcpd8hm8", "model": "small"}',NULL,NULL,NULL,'ds_01m8d6mxqjgwgm8e87rcpd8hm8',1,3,0,NULL,NULL,0,NULL,NULL,'683c452451f3d5df752523b021bed8f2399167b2db4aa16dd759774487ea1ead',NULL,1795739524373536,NULL,NULL);
INSERT INTO "jobs" VALUES('job_01m8d6n78q7asqqvsbvjzn5xky','training','tests','running','{"kind": "training", "dataset": "ds_01m8d6mxqjgwgm8e87rcpd8hm8", "model": "small"}',NULL,NULL,NULL,'ds_01m8d6mxqjgwgm8e87rcpd8hm8',1,3,1,'worker',1795739539378353,0,NULL,NULL,'683c452451f3d5df752523b021bed8f2399167b2db4aa16dd759774487ea1ead',NULL,1795739524375995,1795739524378353,NULL);
CREATE TABLE keys (
	id VARCHAR(32) NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	scopes JSON NOT NULL, 
	created_at BIGINT NOT NULL, 
	revoked_at BIGINT, 
	last_used_at BIGINT, 
	CONSTRAINT pk_keys PRIMARY KEY (id)
);
INSERT INTO "keys" VALUES('aethmt9ap553','first','1e6c10bf4178da116d02b7f4cdd01103919bf5c92b286f27e2e9723109cf2305','["rollout"]',1795739514002627,NULL,NULL);
CREATE TABLE models (
	name VARCHAR(64) NOT NULL, 
	owner VARCHAR(200) NOT NULL, 
	description TEXT NOT NULL, 
	tags JSON NOT NULL, 
	last_number INTEGER NOT NULL, 
	revision INTEGER NOT NULL, 
	created_at BIGINT NOT NULL, 
	updated_at BIGINT NOT NULL, 
	CONSTRAINT pk_models PRIMARY KEY (name)
);
INSERT INTO "models" VALUES('small','tests','','{}',1,1,1795739524358058,1795739524358058);
CREATE TABLE versions (
	model VARCHAR(64) NOT NULL, 
	number INTEGER NOT NULL, 
	owner VARCHAR(200) NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	signature JSON NOT NULL, 
	spec JSON NOT NULL, 
	card JSON NOT NULL, 
	evaluation JSON NOT NULL, 
	certificate JSON NOT NULL, 
	job_id VARCHAR(64), 
	created_at BIGINT NOT NULL, 
	CONSTRAINT pk_versions PRIMARY KEY (model, number), 
	CONSTRAINT fk_versions_model FOREIGN KEY(model) REFERENCES models (name), 
	CONSTRAINT uq_versions_job_id UNIQUE (job_id)
);
INSERT INTO "versions" VALUES('small',1,'tests','7f0c9e771734d0c47398c34fb0ac49de984e6b69277ac591058247ddad9b54fe',40339,'{"states": ["a", "b", "c"], "units": [], "time_unit": "", "parameters": [], "controls": [], "latent": 5, "domain": {"lower": [0.0, 0.0, 0.0], "upper": [1.0, 4e-05, 1.1], "parameters_lower": [], "parameters_upper": [], "controls_lower": [], "controls_upper": [], "conserved_lower": [0.9], "conserved_upper": [1.1], "end": 1000.0}}','{"latent": 5, "linear": {"kind": "modal", "shift": 0.0, "rates": {"minimum": 0.0001, "maximum": 10000.0}, "oscillating": 0, "depends_on_parameters": false}, "nonlinear": {"kind": "relaxation", "width": 32, "depth": 2, "initial_scale": 1.0, "contraction": null}, "autoencoder": {"kind": "residual", "width": 32, "depth": 2}, "integrator": "etd1", "steps": {"kind": "grid", "times": [0.0, 0.001, 0.0031622776601683794, 0.01, 0.03162277660168379, 0.1, 0.31622776601683794, 1.0, 3.1622776601683795, 10.0, 31.622776601683793, 100.0, 316.22776601683796, 1000.0]}, "propagators": "precomputed", "conserved": {"mass": {"a": 1.0, "b": 1.0, "c": 1.0}}, "positive": false, "normalisation": {"a": "linear", "b": "linear", "c": "linear"}, "precision": "float64"}','{"seed": 0}','{"test": {"scaled_mse": 1e-07}}','{"box": {"holds": true, "statement": "the latent stays in its box"}}','job_01m8d6mxqn8v40ycd893eqjvkx',1795739524358058);
CREATE TABLE workers (
	id VARCHAR(200) NOT NULL, 
	queues JSON NOT NULL, 
	started_at BIGINT NOT NULL, 
	seen_at BIGINT NOT NULL, 
	CONSTRAINT pk_workers PRIMARY KEY (id)
);
CREATE INDEX ix_alias_moves_model_alias_id ON alias_moves (model, alias, id);
CREATE INDEX ix_datasets_created_at_id ON datasets (created_at, id);
CREATE INDEX ix_datasets_digest ON datasets (digest);
CREATE INDEX ix_models_created_at_name ON models (created_at, name);
CREATE INDEX ix_jobs_created_at_id ON jobs (created_at, id);
CREATE INDEX ix_jobs_dataset_id_state ON jobs (dataset_id, state);
CREATE INDEX ix_jobs_state_lease_until ON jobs (state, lease_until);
CREATE INDEX ix_versions_digest ON versions (digest);
CREATE INDEX ix_events_job_id_id ON events (job_id, id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('events',6);
INSERT INTO "sqlite_sequence" VALUES('alias_moves',1);
COMMIT;
