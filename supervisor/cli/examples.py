"""What `--help` shows of each command in use."""

EXAMPLES = {
    "up": """\
examples:
  supervise topologies/disagg.yaml
  supervise topologies/disagg.yaml --port 8081 --namespace blue
  supervise topologies/disagg.yaml --web       # and a page that draws the live tree
  supervise up topologies/disagg.yaml --set children.context.replicas=2
  supervise topologies/tensor_parallel.yaml --without-workers    # see supervise ranks""",
    "check": """\
examples:
  supervise check topologies/disagg.yaml
  supervise check topologies/disagg.yaml --set children.router.options.temperature=0.5""",
    "certificates": """\
examples:
  supervise certificates topologies/multi_node.yaml
  supervise certificates topologies/multi_node.yaml --into /etc/understudy/certificates
  supervise certificates topologies/multi_node.yaml --renew --days 365""",
    "chat": """\
examples:
  supervise chat                               # with the engine of topologies/disagg.yaml
  supervise chat topologies/aggregated.yaml
  echo 'What is the capital of Chad?' | supervise chat""",
    "doctor": """\
examples:
  supervise doctor                             # what this host has
  supervise doctor topologies/tensorrt_llm/disagg.yaml
  supervise doctor topologies/aggregated.yaml --json | jq -r 'select(.outcome == "failed").text'""",
    "ranks": """\
examples:
  mpirun -n 5 supervise ranks topologies/tensor_parallel.yaml
  srun --mpi=pmix --ntasks 5 supervise ranks topologies/tensor_parallel.yaml
  supervise ranks topologies/tensor_parallel.yaml     # without mpirun: how many ranks it takes""",
    "schema": """\
example:
  supervise schema > topology.schema.json      # for the YAML support of an editor""",
    "version": "example:\n  supervise version",
    "status": """\
examples:
  supervise status                             # of the only one that runs
  supervise status topologies/disagg.yaml
  supervise status -v                          # with the last lines of all that ever failed
  supervise status --namespace blue --json | jq '.children[].state'""",
    "down": """\
examples:
  supervise down
  supervise down --now                         # do not wait for work in progress
  supervise down --namespace blue --force      # kill, do not ask""",
    "scale": """\
examples:
  supervise scale context 3
  supervise scale generation 0 --namespace blue""",
    "drain": """\
examples:
  supervise drain generation/1                 # say, to look at its GPU
  supervise restart generation/1               # and back""",
    "log-level": """\
examples:
  supervise log-level router/0 debug           # and back: supervise log-level router/0 info
  supervise log-level all warning""",
    "apply": """\
examples:
  supervise apply topologies/disagg.yaml --dry-run
  supervise apply topologies/disagg.yaml --yes
  supervise apply topologies/disagg.yaml --set children.router.options.strategy=random""",
    "route": """\
examples:
  supervise route explain --prompt "Tell me of France"
  supervise route explain --chat --prompt Hello --session alice
  supervise route explain --json < prompt.txt | jq .candidates""",
    "restart": """\
examples:
  supervise restart context/0
  supervise restart --rolling generation       # one after the other, while serving
  supervise restart router --namespace blue""",
    "events": """\
examples:
  supervise events                             # what has lately happened
  supervise events -f --json | jq 'select(.event == "ChildEnded")'""",
    "metrics": """\
examples:
  supervise metrics
  supervise metrics | grep understudy_requests_total
  supervise metrics > /var/lib/node_exporter/understudy.prom""",
    "keys": """\
examples:
  supervise keys create alice --requests-per-minute 60 --concurrency 4
  supervise keys list --keys /etc/understudy/keys.json
  supervise keys revoke alice""",
    "models": """\
examples:
  supervise models list
  supervise models add chat gpt-4o-mini understudy/capitals
  supervise models add completion gpt-4o-mini understudy/capitals
  supervise models add chat newest understudy/next --replace
  supervise models remove chat gpt-4o-mini
  supervise models list --json | jq -r '.[] | select(.target != null).name'""",
    "top": """\
examples:
  supervise top
  supervise top --interval 0.5 --namespace blue
  supervise top --json | jq .overview.totals.tokens_per_s""",
    "completion": """\
examples:
  supervise completion bash > ~/.local/share/bash-completion/completions/supervise
  supervise completion zsh > ~/.zfunc/_supervise
  supervise completion fish > ~/.config/fish/completions/supervise.fish""",
    "logs": """\
examples:
  supervise logs                               # the last lines of every child
  supervise logs -f context/0
  supervise logs -n 100 --json router | jq -r .line""",
}
