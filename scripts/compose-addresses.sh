#!/bin/sh
# Says where the containers of docker-compose.yml are reached.
set -eu
echo 'Grafana     http://127.0.0.1:3000'
echo 'Prometheus  http://127.0.0.1:9090'
if [ "${1:-}" = watch ]; then
    echo 'They look at this finstream on this host, which asks readers of PostgreSQL for a password and viewers for none:'
    echo '  finstream --http 0.0.0.0:8080 --pg-listen 0.0.0.0:5433 --insecure-listen'
    exit
fi
echo 'Console     http://127.0.0.1:8090'
echo 'Pages       http://127.0.0.1:8081 (producer)  http://127.0.0.1:8082 (consumer)'
echo 'Kafka API   127.0.0.1:19092'
echo 'PostgreSQL  127.0.0.1:15432  (password: .secrets/postgres_password)'
echo 'scripts/compose-finstream.sh runs finstream on this host against them.'
