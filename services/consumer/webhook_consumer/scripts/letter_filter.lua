-- Stands before the scripts that look through dead letters. ARGV 1 to 4: tool, tenant, cause, fingerprint;
-- what is empty matches all.
local wanted = { tool = ARGV[1], tenant = ARGV[2], cause = ARGV[3], fingerprint = ARGV[4] }

local function matches(is)
  for name, value in pairs(wanted) do
    local found = name == 'tool' and tool_of(is) or is[name]
    if value ~= '' and value ~= found then
      return false
    end
  end
  return true
end
