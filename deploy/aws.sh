# shellcheck shell=sh
# Commands for a stack, for any shell at any time: what they need they ask the stack.
#
#   export AWS_REGION=eu-central-1 STACK=ml-api
#   . deploy/aws.sh
#
# In the repository's folder, at the version that runs: `deploy` sends the template that lies there.

# Create the stack or change it: deploy ImageTag=0.2.0. What isn't named stays as it was.
deploy() {
    aws cloudformation deploy --stack-name "$STACK" --capabilities CAPABILITY_IAM \
        --template-file deploy/cloudformation/ml-api.yaml --parameter-overrides "$@"
}

# What the stack made: output ClusterName.
output() {
    aws cloudformation describe-stacks --stack-name "$STACK" --output text \
        --query "Stacks[0].Outputs[?OutputKey=='$1'].OutputValue"
}

# What the stack was told: parameter ImageTag.
parameter() {
    aws cloudformation describe-stacks --stack-name "$STACK" --output text \
        --query "Stacks[0].Parameters[?ParameterKey=='$1'].ParameterValue"
}

# Build the folder's image and push it under a tag, once for each tag: publish 0.2.0. The second word is
# a target of the Dockerfile that gets a tag of its own: publish 0.2.0 gpu makes 0.2.0-gpu.
publish() {
    image=$(output RepositoryUri):$1${2:+-$2}
    aws ecr get-login-password |
        docker login --username AWS --password-stdin "${image%%/*}" &&
        docker build --platform linux/amd64 --target "${2:-api}" --tag "$image" . &&
        docker push "$image"
}

# Run a command in a new task of its own, wait for its end and show its log: once api app doctor.
# The first word is a task: api, worker or migrate. Fails unless the command's exit status is 0.
once() (
    name=$1
    shift
    case $name in
        api) group=ApiSecurityGroupId ;;
        *) group=WorkerSecurityGroupId ;;
    esac
    cluster=$(output ClusterName)
    subnets=$(parameter TaskSubnets)
    public=$(parameter AssignPublicIp)
    network="subnets=[$subnets],securityGroups=[$(output "$group")],assignPublicIp=$public"
    overrides=$(python3 -c 'import json, sys
print(json.dumps({"containerOverrides": [{"name": sys.argv[1], "command": sys.argv[2:]}]}))' \
        "$name" "$@")
    task=$(aws ecs run-task --cluster "$cluster" --launch-type FARGATE \
        --task-definition "$STACK-$name" --overrides "$overrides" \
        --network-configuration "awsvpcConfiguration={$network}" \
        --query 'tasks[0].taskArn' --output text)
    aws ecs wait tasks-stopped --cluster "$cluster" --tasks "$task"
    aws logs tail "/ml-api/$STACK/$name" --since 1h --format short \
        --log-stream-names "$name/$name/${task##*/}"
    aws ecs describe-tasks --cluster "$cluster" --tasks "$task" --output text \
        --query 'tasks[0].stoppedReason'
    code=$(aws ecs describe-tasks --cluster "$cluster" --tasks "$task" --output text \
        --query 'tasks[0].containers[0].exitCode')
    echo "exit code $code"
    [ "$code" = 0 ]
)

# Bring the tables to MigrationImageTag.
migrate() {
    once migrate app db upgrade
}

# Ask the database, which only the stack's tasks reach: sql 'SELECT count(*) FROM jobs'. It can only
# read; what it answers stays in the migrations' log.
sql() {
    once migrate python -c 'import os, sys, psycopg2
connection = psycopg2.connect(os.environ["DATABASE_URL"], options="-c statement_timeout=60s")
connection.set_session(readonly=True)
cursor = connection.cursor()
cursor.execute(sys.argv[1])
print(*(column.name for column in cursor.description), sep=" | ")
for row in cursor:
    print(*row, sep=" | ")' "$1"
}
